-- Fills an empty shop. The number of orders comes from the setting shop.orders; the rest is in proportion.
-- Everything is computed from the row number: two seeds of one size are alike, and every reference is met.

-- Neither the audit trigger nor the checks of foreign keys are wanted here: they would take most of the time.
set session_replication_role = replica;

create temporary table sizes on commit drop as
select orders,
       greatest(orders / 5, 10) as customers,
       greatest(orders / 50, 20) as products,
       40 as categories,
       25 as suppliers,
       30 as coupons
from (select current_setting('shop.orders')::int as orders) as wanted;

insert into customers (email, full_name, phone, created_at)
select 'customer' || i || '@example.com',
       (array['Ada', 'Grace', 'Edgar', 'Barbara', 'Ken', 'Frances', 'Tony', 'Jean'])[1 + i % 8] || ' ' ||
       (array['Smith', 'Garcia', 'Okafor', 'Novak', 'Tanaka', 'Olsen', 'Rossi'])[1 + i % 7],
       case when i % 3 > 0 then '+4420' || lpad(i::text, 8, '0') end,
       timestamptz '2024-01-01 00:00:00+00' + i * interval '7 minutes'
from sizes, generate_series(1, customers) as i;

insert into addresses (customer_id, line1, city, postal_code, country, is_default)
select 1 + (i - 1) % customers,
       i || ' High Street',
       (array['London', 'Lyon', 'Graz', 'Turin', 'Porto'])[1 + i % 5],
       lpad((i % 99999)::text, 5, '0'),
       (array['GB', 'FR', 'AT', 'IT', 'PT'])[1 + i % 5],
       i <= customers
from sizes, generate_series(1, customers * 6 / 5) as i;

insert into categories (parent_id, name)
select case when i > 8 then 1 + i % 8 end, 'Category ' || i
from sizes, generate_series(1, categories) as i;

insert into products (sku, name, category_id, price, attributes, discontinued_at)
select 'SKU-' || lpad(i::text, 6, '0'),
       (array['Oak', 'Steel', 'Glass', 'Linen'])[1 + i % 4] || ' ' || (array['table', 'lamp', 'chair', 'shelf'])[1 + i / 4 % 4]
       || ' no. ' || i,
       1 + i % categories,
       5 + i % 495 + 0.99,
       jsonb_build_object('weight_g', 100 + i % 5000, 'colour', (array['red', 'green', 'blue'])[1 + i % 3]),
       case when i % 20 = 0 then timestamptz '2025-01-01 00:00:00+00' + i * interval '1 hour' end
from sizes, generate_series(1, products) as i;

insert into suppliers (name, vat_number)
select 'Supplier ' || i, 'ATU' || lpad(i::text, 8, '0')
from sizes, generate_series(1, suppliers) as i;

insert into product_suppliers (product_id, supplier_id, lead_time_days)
select product, 1 + (product + choice) % suppliers, 3 + product % 20
from sizes, generate_series(1, products) as product, generate_series(0, 1) as choice;

insert into inventory (warehouse, product_id, supplier_id, on_hand, reserved, counted_at)
select warehouse, product, 1 + product % suppliers, product % 300, product % 300 / 10, timestamptz '2025-09-01 00:00:00+00'
from sizes, generate_series(1, products) as product, unnest(array['VIE', 'LYS']) as warehouse;

insert into coupons (code, percent_off, valid_during)
select 'SAVE' || i, 5 + i % 40, daterange(date '2024-01-01' + i * 10, date '2024-03-01' + i * 10)
from sizes, generate_series(1, coupons) as i;

insert into orders (customer_id, status, placed_at, total, coupon_code, note, currency)
select 1 + (i::bigint * 7919 % customers)::int,
       case when i > orders * 0.98 then 'new' when i > orders * 0.95 then 'paid' when i % 25 = 0 then 'cancelled'
            when i % 7 = 0 then 'shipped' else 'delivered' end::order_status,
       timestamptz '2024-03-20 00:00:00+00' + i * (interval '500 days' / orders),
       10 + i % 990 + 0.50,
       case when i % 12 = 0 then 'SAVE' || (1 + i / 12 % coupons) end,
       case when i % 9 = 0 then 'Please leave it at the door, order ' || i end,
       case when i % 10 = 0 then 'GBP' else 'EUR' end
from sizes, generate_series(1, orders) as i;

insert into order_items (order_id, line_no, product_id, quantity, unit_price)
select i, line, 1 + ((i::bigint * 31 + line) % products)::int, 1 + (i + line) % 4, 5 + i % 495 + 0.99
from sizes, generate_series(1, orders) as i, generate_series(1, 1 + i % 2) as line;

insert into payments (order_id, method, amount, reference, paid_at, currency)
select id,
       (array['card', 'card', 'transfer', 'invoice', 'voucher'])[1 + id % 5],
       total,
       'PAY-' || lpad(id::text, 10, '0'),
       case when status <> 'new' then placed_at + interval '10 minutes' end,
       currency
from orders
where status <> 'cancelled' and id % 5 > 0;

insert into shipments (order_id, line_no, carrier, tracking_code, shipped_at)
select id, 1, (array['DHL', 'UPS', 'GLS'])[1 + id / 3 % 3], 'TR' || lpad(id::text, 12, '0'), placed_at + interval '2 days'
from orders
where status in ('shipped', 'delivered') and id % 3 > 0;

insert into reviews (product_id, customer_id, rating, body, created_at)
select 1 + i % products, 1 + (i::bigint * 101 % customers)::int, 1 + i % 5, 'Review no. ' || i,
       timestamptz '2024-05-01 00:00:00+00' + i * interval '1 hour'
from sizes, generate_series(1, orders / 10) as i;

insert into audit_log (table_name, row_id, changed_at, changed_by, before, after)
select 'orders', id, placed_at + interval '1 hour', 'shop', jsonb_build_object('status', 'new'), jsonb_build_object('status', status)
from orders
where id % 10 = 0;

refresh materialized view daily_sales;
reset session_replication_role;
analyze;
